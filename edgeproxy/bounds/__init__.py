"""Every bound of every reader of the product, as one table. It is above the two wings, and nothing imports it but the
script that writes its page, and tests."""
