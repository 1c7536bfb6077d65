"""edgeproxy.collector.billing.reports"""
