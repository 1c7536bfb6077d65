"""edgeproxy.collector.billing.credits"""
