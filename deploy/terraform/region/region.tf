# One region: its hub, and where it has the collector also PostgreSQL and the key of the customers' data keys. The cluster
# and its network are yours; deploy/helm runs the edges in it. It was never applied: docs/operations/terraform.md says what
# was checked.

locals {
  collectors = var.collector ? toset(["collector"]) : toset([])
}

resource "aws_kms_key" "storage" {
  description             = "edgeproxy ${var.name}: disks of the hub and of PostgreSQL, secrets"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

# ---- the hub

resource "aws_security_group" "hub" {
  name        = "${var.name}-hub"
  description = "Who reaches the hub"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "hub" {
  security_group_id            = aws_security_group.hub.id
  referenced_security_group_id = var.client_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_elasticache_subnet_group" "hub" {
  name       = "${var.name}-hub"
  subnet_ids = var.subnet_ids
}

resource "aws_elasticache_parameter_group" "hub" {
  name   = "${var.name}-hub"
  family = "valkey8"
  # Counts of limits end by themselves; nothing else may be dropped for want of memory.
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

# Rights as docs/operations/hub.md says. Their passwords are in Terraform's state: keep it encrypted, and to yourselves.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "valkey"
  access_string = "off -@all"
  authentication_mode { type = "no-password-required" }
}

resource "aws_elasticache_user" "edge" {
  user_id       = "${var.name}-edge"
  user_name     = "edge"
  engine        = "valkey"
  access_string = "on ~rl:* %R~dir:* resetchannels &dir:{people}:news &dir:{people}:counted-more -@all +fcall +cluster|slots +asking +getrange +set +time +lindex +lrange +subscribe +ping"
  authentication_mode {
    type      = "password"
    passwords = [var.hub_passwords.edge]
  }
}

resource "aws_elasticache_user" "loader" {
  user_id       = "${var.name}-loader"
  user_name     = "loader"
  engine        = "valkey"
  access_string = "on -@all +function|load +cluster|slots"
  authentication_mode {
    type      = "password"
    passwords = [var.hub_passwords.loader]
  }
}

resource "aws_elasticache_user_group" "hub" {
  user_group_id = "${var.name}-hub"
  engine        = "valkey"
  user_ids = [
    aws_elasticache_user.default.user_id, aws_elasticache_user.edge.user_id, aws_elasticache_user.loader.user_id,
  ]
}

resource "aws_elasticache_replication_group" "hub" {
  replication_group_id       = "${var.name}-hub"
  description                = "edgeproxy: limits that hosts share"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = var.hub_node_type
  num_cache_clusters         = 2
  port                       = 6379
  parameter_group_name       = aws_elasticache_parameter_group.hub.name
  subnet_group_name          = aws_elasticache_subnet_group.hub.name
  security_group_ids         = [aws_security_group.hub.id]
  user_group_ids             = [aws_elasticache_user_group.hub.user_group_id]
  automatic_failover_enabled = true
  multi_az_enabled           = true
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  kms_key_id                 = aws_kms_key.storage.arn
}

# ---- PostgreSQL, where this region has the collector

resource "aws_security_group" "database" {
  for_each    = local.collectors
  name        = "${var.name}-database"
  description = "Who reaches the ledger"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  for_each                     = local.collectors
  security_group_id            = aws_security_group.database[each.key].id
  referenced_security_group_id = var.client_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_subnet_group" "database" {
  for_each   = local.collectors
  name       = "${var.name}-database"
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "database" {
  for_each = local.collectors
  name     = "${var.name}-database"
  family   = "postgres17"
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
}

# Its administrator makes the owner of the tables and the collector's login: docs/operations/collector.md.
resource "aws_db_instance" "database" {
  for_each                      = local.collectors
  identifier                    = "${var.name}-ledger"
  engine                        = "postgres"
  engine_version                = "17"
  instance_class                = var.database_instance_class
  db_name                       = "ledger"
  username                      = "administrator"
  manage_master_user_password   = true # in Secrets Manager, and not in the state
  master_user_secret_kms_key_id = aws_kms_key.storage.key_id
  allocated_storage             = var.database_gigabytes
  max_allocated_storage         = var.database_gigabytes * 10
  storage_type                  = "gp3"
  storage_encrypted             = true
  kms_key_id                    = aws_kms_key.storage.arn
  multi_az                      = true
  publicly_accessible           = false
  db_subnet_group_name          = aws_db_subnet_group.database[each.key].name
  parameter_group_name          = aws_db_parameter_group.database[each.key].name
  vpc_security_group_ids        = [aws_security_group.database[each.key].id]
  backup_retention_period       = 35 # restored to any second of these days
  copy_tags_to_snapshot         = true
  deletion_protection           = true
  skip_final_snapshot           = false
  final_snapshot_identifier     = "${var.name}-ledger-final"
  auto_minor_version_upgrade    = true
}

# ---- the key that wraps the data keys of customers: `encryption: {kms: aws-kms:ARN}`

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "customers" {
  for_each = local.collectors
  statement {
    sid = "Administration"
    # Whoever looks after keys does not use them.
    actions = [
      "kms:CancelKeyDeletion", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey", "kms:EnableKeyRotation", "kms:GetKeyPolicy",
      "kms:GetKeyRotationStatus", "kms:ListAliases", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion",
      "kms:TagResource", "kms:UntagResource", "kms:UpdateKeyDescription",
    ]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
  dynamic "statement" {
    for_each = var.collector_role == "" ? [] : [var.collector_role]
    content {
      sid       = "Collector"
      actions   = ["kms:Encrypt", "kms:Decrypt"]
      resources = ["*"]
      principals {
        type        = "AWS"
        identifiers = [statement.value]
      }
    }
  }
}

resource "aws_kms_key" "customers" {
  for_each                = local.collectors
  description             = "edgeproxy ${var.name}: wraps the data keys of customers"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.customers[each.key].json
}
