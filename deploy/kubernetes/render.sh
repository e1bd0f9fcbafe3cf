#!/usr/bin/env bash
# Renders the overlays, the add-ons and the sweep to plain YAML in rendered/, for use without kustomize, and converts Prometheus' rules to
# a PrometheusRule of the Prometheus operator.
set -euo pipefail
cd "$(dirname "$0")"
kubectl=../../.venv/bin/kubectl
[[ -x $kubectl ]] || kubectl=kubectl

{
  echo "# Made by render.sh from deploy/prometheus/rules.yml and alerts.yml."
  echo "apiVersion: monitoring.coreos.com/v1"
  echo "kind: PrometheusRule"
  echo "metadata:"
  echo "  name: shoal"
  echo "spec:"
  echo "  groups:"
  sed --silent 's/^  /    /p; /^$/p' ../prometheus/rules.yml ../prometheus/alerts.yml
} > addons/monitoring/prometheus-rule.yaml
for source in overlays/* addons/* sweep; do
  "$kubectl" kustomize "$source" > "rendered/$(basename "$source").yaml"
done
