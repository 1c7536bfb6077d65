"""edgeproxy.collector.billing.period_close"""
