"""edgeproxy.collector.billing.invoices"""
