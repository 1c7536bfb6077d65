"""edgeproxy.collector.billing.jobs"""
