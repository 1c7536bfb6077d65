"""edgeproxy.collector.jobs"""
