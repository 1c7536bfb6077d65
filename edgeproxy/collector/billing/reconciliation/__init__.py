"""edgeproxy.collector.billing.reconciliation"""
