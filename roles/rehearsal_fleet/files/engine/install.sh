# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# Runs inside the image build: what vllm-ascend's Dockerfiles leave behind, as far as anything looks at it.
set -eu
cann=8.5.1
machine=$(uname -m)
ascend=/usr/local/Ascend

# Two git repositories, the same on every build.
export GIT_AUTHOR_NAME=upstream GIT_AUTHOR_EMAIL=upstream@example.com GIT_AUTHOR_DATE='2026-04-30T00:00:00+0000'
export GIT_COMMITTER_NAME=upstream GIT_COMMITTER_EMAIL=upstream@example.com GIT_COMMITTER_DATE='2026-04-30T00:00:00+0000'
git config --system core.autocrlf false
for name in vllm vllm-ascend; do
  cd "/vllm-workspace/$name"
  git init -q -b main
  git add -f .
  git commit -q -m "$name 0.18.0"
  git tag v0.18.0
  git -c pack.threads=1 repack -adq
  git prune
done

# CANN and NNAL: version files and environment.
toolkit=$ascend/cann-$cann
mkdir -p "$toolkit/$machine-linux" "$toolkit/lib64" $ascend/ascend-toolkit $ascend/nnal/atb/latest $ascend/driver /workspace
ln -s "cann-$cann" $ascend/cann
ln -s "../cann-$cann" $ascend/ascend-toolkit/latest
printf '%s\n' package_name=Ascend-cann-toolkit version=$cann innerversion=V100R001C25SPC002B220 \
  "compatible_version=[V100R001C15],[V100R001C18],[V100R001C19],[V100R001C20],[V100R001C21],[V100R001C23]" \
  "arch=$machine" os=linux "path=$toolkit/$machine-linux" > "$toolkit/$machine-linux/ascend_toolkit_install.info"
printf '    %s\n' "Ascend-cann-atb : $cann" "Ascend-cann-atb Version : $cann.B220" "Platform : $machine" > $ascend/nnal/atb/latest/version.info
echo "export ASCEND_TOOLKIT_HOME=$ascend/ascend-toolkit/latest" > $ascend/ascend-toolkit/set_env.sh
echo "export ATB_HOME_PATH=$ascend/nnal/atb/latest" > $ascend/nnal/atb/set_env.sh
cat >> /root/.bashrc <<BASHRC
export LD_PRELOAD=/usr/lib/$machine-linux-gnu/libjemalloc.so.2
export LD_LIBRARY_PATH=\$LD_LIBRARY_PATH:/usr/local/lib
BASHRC

# What pip knows: the editable installs, and transformers before the patch set (its metadata only).
site=$(python3 -c 'import site; print(site.getsitepackages()[0])')
distribution() { # name, version, requirements...
  folder="$site/$(echo "$1" | tr - _)-$2.dist-info"
  mkdir -p "$folder"
  printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\nSummary: Stand-in of the rehearsal fleet: metadata only\n' "$1" "$2" > "$folder/METADATA"
  echo rehearsal > "$folder/INSTALLER"
  base=$(basename "$folder")
  shift 2
  for requirement in "$@"; do echo "Requires-Dist: $requirement" >> "$folder/METADATA"; done
  printf '%s/METADATA,,\n%s/INSTALLER,,\n%s/RECORD,,\n' "$base" "$base" "$base" > "$folder/RECORD"
}
mkdir -p "$site"
distribution vllm 0.18.0+empty 'transformers <5,>=4.56.0'
distribution vllm-ascend 0.18.0rc1
distribution transformers 4.57.6
printf '%s\n' /vllm-workspace/vllm /vllm-workspace/vllm-ascend > "$site/__editable__.vllm.pth"

cat > /usr/local/bin/vllm <<'VLLM'
#!/usr/bin/python3
import sys

sys.path.insert(0, "/opt/rehearsal")

from vllm_sim.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
VLLM
chmod 0755 /usr/local/bin/vllm
