"""``redis-cli -u URL COMMAND ...`` for machines that have the server only."""

import sys

import redis


def main() -> int:
    """Send one command; print the answer as it comes to a pipe."""
    option, url, *words = sys.argv[1:]
    assert option == "-u", "redis-cli -u URL COMMAND ..."
    try:
        with redis.Redis.from_url(url, protocol=2, socket_timeout=5.0) as client:
            answer = client.execute_command(*words)
    except redis.ConnectionError as error:
        print(f"Could not connect to Redis: {error}", file=sys.stderr)
        return 1
    except redis.RedisError as error:
        print(f"(error) {error}")
        return 0
    for line in answer if isinstance(answer, list) else [answer]:
        text = "OK" if line is True and words[0].upper() != "PING" else line
        text = "PONG" if line is True and words[0].upper() == "PING" else text
        print(text.decode() if isinstance(text, bytes) else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
