"""edgeproxy.collector.billing.stripe"""
