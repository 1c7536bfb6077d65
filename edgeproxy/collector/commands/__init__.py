"""edgeproxy.collector.commands"""
