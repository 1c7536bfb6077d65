"""edgeproxy.collector.billing.rollout"""
