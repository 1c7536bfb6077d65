"""edgeproxy.collector.api"""
