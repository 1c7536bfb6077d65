"""edgeproxy.collector.billing.journal"""
