# What a survey asks of a host, as somebody would write it into a shell script: the practical floor.
npu-smi info
cat /usr/local/Ascend/driver/version.info /usr/local/Ascend/firmware/version.info /etc/ascend_install.info /etc/os-release
docker images --digests
for unit in /etc/systemd/system/vllm-ascend-*.service; do
  name=$(basename "$unit" .service)
  sha256sum "$unit" "/var/lib/vllm-ascend-fleet/instances/${name#vllm-ascend-}/current/environment"
  systemctl show --property=ActiveState,UnitFileState,NRestarts "$name.service"
done
