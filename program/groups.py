"""The inventory groups that epicli makes, and which of them hold data.

Groups are role names with `-` as `_` (facts: `configuration/feature-mapping` and `-mappings`,
0.3 to 2.0). A service claims groups by its component's `groups`; what holds data and is claimed
by none is named in every plan, manifest and summary.
"""

STATEFUL = {
    "elasticsearch": "Elasticsearch",
    "grafana": "Grafana",
    "haproxy": "HAProxy",
    "ignite": "Apache Ignite",
    "image_registry": "the container image registry",
    "kafka": "Kafka",
    "kibana": "Kibana",
    "kubernetes_master": "Kubernetes: etcd, certificates, objects, volumes",
    "logging": "Elasticsearch / OpenSearch for logs",
    "opendistro_for_elasticsearch": "Open Distro for Elasticsearch",
    "opensearch": "OpenSearch",
    "opensearch_dashboards": "OpenSearch Dashboards",
    "postgresql": "PostgreSQL",
    "prometheus": "Prometheus and Alertmanager",
    "rabbitmq": "RabbitMQ",
    "repository": "the package repository",
    "vault": "HashiCorp Vault",
    "zookeeper": "ZooKeeper",
}
"""Groups whose hosts hold data or configuration worth saving."""

STATELESS = frozenset(
    {
        "applications",  # what runs in Kubernetes; its state is the cluster's
        "elasticsearch_curator",
        "filebeat",
        "firewall",
        "haproxy_exporter",
        "helm",
        "jmx_exporter",
        "kafka_exporter",
        "kubernetes_node",
        "node_exporter",
        "postgres_exporter",
        "rook",
        "ungrouped",
        "all",
    }
)
"""Groups whose hosts can be made again by epicli without loss."""
