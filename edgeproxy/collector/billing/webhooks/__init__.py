"""edgeproxy.collector.billing.webhooks"""
