"""edgeproxy.collector.billing.subscriptions"""
