"""edgeproxy.collector.billing.stripe_sync"""
