# Every verb of the checkout. TIERS="lint units" narrows `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export LC_ALL := C.UTF-8
export PATH := $(CURDIR)/.venv/bin:$(PATH)
LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --custom-compile-command "make lock"

.PHONY: help venv demo demo-clean test lint units browser package core_units sanity molecule end_to_end rollout test-vllm bench bench-clean lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

venv: .venv/.test ## make .venv from the locked requirements

.venv/.run: requirements.txt .ci/venv
	@.ci/venv run

.venv/.test: requirements-test.txt .ci/venv
	@.ci/venv test

demo: .venv/.run ## bring up the rehearsal fleet and deploy the four Gemma 4 models on it
	ansible-playbook playbooks/rehearse.yml -i inventories/rehearsal
	ansible-playbook deploy_gemma4.yml -i inventories/rehearsal

demo-clean: .venv/.run ## remove every trace of the rehearsal fleet, and of the fleets of the tests
	ansible-playbook playbooks/rehearse_clean.yml -i inventories/rehearsal
	ansible-playbook playbooks/rehearse_clean.yml -i tests/inventories/group
	ansible-playbook playbooks/rehearse_clean.yml -i tests/inventories/rollout
	ansible-playbook playbooks/rehearse_clean.yml -i tests/real_vllm/inventory

test: .venv/.test ## run everything that CI runs; ends with the counts and leaves the rehearsal fleet up
	@python tests/run.py $(TIERS)

lint units browser package core_units sanity molecule end_to_end rollout: .venv/.test
	@python tests/run.py $@

test-vllm: .venv/.test ## meet the real vLLM, on a CPU with two tiny models; leaves its fleet up
	@python tests/run.py real_vllm

bench: .venv/.run ## measure the product beside its peers and write docs/performance.md; HOSTS="16 64 256" RUNS=3
	@python benchmarks/scale.py $(if $(HOSTS),--hosts "$(HOSTS)") $(if $(RUNS),--runs $(RUNS))

bench-clean: .venv/.run ## remove the fleet of bench
	@ansible-playbook playbooks/rehearse_clean.yml -i benchmarks/inventory

lock: .venv/.test ## write the locked requirements again
	$(LOCK) --upgrade --python-version 3.11 --output-file requirements.txt requirements.in
	$(LOCK) --upgrade --python-version 3.11 --output-file requirements-test.txt requirements-test.in
	$(LOCK) --upgrade --python-version 3.11 --output-file tests/cores/2.16.txt tests/cores/2.16.in
	$(LOCK) --upgrade --python-version 3.11 --output-file tests/cores/2.19.txt tests/cores/2.19.in
	$(LOCK) --upgrade --python-version 3.12 --output-file tests/cores/2.21.txt tests/cores/2.21.in

clean: ## remove what the tests left in the checkout (not the fleet)
	rm -rf .ansible .cache .pytest_cache .venv vllm_ascend-fleet-*.tar.gz
