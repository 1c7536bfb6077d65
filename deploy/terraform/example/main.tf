# Three regions: edges in all of them, the collector in the first; its exports and backups are copied to another region of the
# same residency. It was never applied: docs/operations/terraform.md says what was checked.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  alias  = "eu_west"
  region = "eu-west-1"
}

provider "aws" {
  alias  = "eu_central"
  region = "eu-central-1"
}

provider "aws" {
  alias  = "us_east"
  region = "us-east-1"
}

provider "aws" {
  alias  = "ap_southeast"
  region = "ap-southeast-1"
}

variable "clusters" {
  description = "The cluster of each region: its network, and the security group of its nodes"
  type = map(object({
    vpc_id            = string
    subnet_ids        = list(string)
    security_group_id = string
  }))
  validation {
    condition     = toset(keys(var.clusters)) == toset(["eu-west", "us-east", "ap-southeast"])
    error_message = "Name eu-west, us-east and ap-southeast."
  }
}

variable "hub_passwords" {
  description = "Of the users `edge` and `loader` of each region's hub, by region"
  type        = map(object({ edge = string, loader = string }))
  sensitive   = true
}

variable "collector_role" {
  description = "The IAM role of the collector's pods, and of its scheduled jobs: its name and its ARN"
  type        = object({ name = string, arn = string })
}

module "eu_west" {
  source                   = "../region"
  providers                = { aws = aws.eu_west }
  name                     = "edgeproxy-eu-west"
  vpc_id                   = var.clusters["eu-west"].vpc_id
  subnet_ids               = var.clusters["eu-west"].subnet_ids
  client_security_group_id = var.clusters["eu-west"].security_group_id
  hub_passwords            = var.hub_passwords["eu-west"]
  collector                = true
  collector_role           = var.collector_role.arn
}

module "us_east" {
  source                   = "../region"
  providers                = { aws = aws.us_east }
  name                     = "edgeproxy-us-east"
  vpc_id                   = var.clusters["us-east"].vpc_id
  subnet_ids               = var.clusters["us-east"].subnet_ids
  client_security_group_id = var.clusters["us-east"].security_group_id
  hub_passwords            = var.hub_passwords["us-east"]
}

module "ap_southeast" {
  source                   = "../region"
  providers                = { aws = aws.ap_southeast }
  name                     = "edgeproxy-ap-se"
  vpc_id                   = var.clusters["ap-southeast"].vpc_id
  subnet_ids               = var.clusters["ap-southeast"].subnet_ids
  client_security_group_id = var.clusters["ap-southeast"].security_group_id
  hub_passwords            = var.hub_passwords["ap-southeast"]
}

module "storage" {
  source    = "../storage"
  providers = { aws = aws.eu_west, aws.copy = aws.eu_central }
  name      = "example-com-edgeproxy"
  jobs_role = var.collector_role.name
}

output "hub_urls" {
  value = {
    eu-west      = module.eu_west.hub_url
    us-east      = module.us_east.hub_url
    ap-southeast = module.ap_southeast.hub_url
  }
}

output "collector" {
  value = {
    database      = module.eu_west.database
    customers_key = module.eu_west.customers_key
    buckets       = module.storage.buckets
  }
}
