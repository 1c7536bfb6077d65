"""The collector: the central service that counts usage, manages customers and bills them. It never imports the edge."""
