variable "name" {
  description = "What the names of this region's resources begin with"
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,28}$", var.name))
    error_message = "A letter, then lower-case letters, digits and hyphens, 29 at most."
  }
}

variable "vpc_id" {
  description = "The network of the cluster in which the edges run"
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of it in two zones at least"
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Redis and PostgreSQL fail over between zones: name two subnets at least."
  }
}

variable "client_security_group_id" {
  description = "The security group of the nodes on which edges and collectors run"
  type        = string
}

variable "hub_node_type" {
  description = "Of Valkey, the hub"
  type        = string
  default     = "cache.t4g.small"
}

variable "hub_passwords" {
  description = "Passwords of the hub's users, of 16 to 128 characters"
  type        = object({ edge = string, loader = string })
  sensitive   = true
}

variable "collector" {
  description = "Whether this region has the collector: its PostgreSQL and the key of its customers' data keys"
  type        = bool
  default     = false
}

variable "collector_role" {
  description = "ARN of the IAM role of the collector, which wraps and unwraps data keys; \"\" for none"
  type        = string
  default     = ""
}

variable "database_instance_class" {
  description = "Of PostgreSQL"
  type        = string
  default     = "db.m7g.large"
}

variable "database_gigabytes" {
  description = "Of PostgreSQL, to begin with; it grows to ten times as much"
  type        = number
  default     = 100
}
