"""The collector: the central service that takes usage, keeps customers and bills. It never imports the edge."""
