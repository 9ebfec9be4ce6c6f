# And what every instance is asked.
for port in 8000 8001; do
  curl -sSf -o /dev/null "http://127.0.0.1:$port/v1/models" || exit 1
done
