"""edgeproxy.collector.billing.rating"""
