"""HAProxy, seen from the controller."""

from components.service import ServiceBackup


class HAProxy(ServiceBackup):
    """Configuration, certificates and unit of every load balancer."""

    service = "haproxy"
    groups = ("haproxy",)
    title = "HAProxy"
