import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPort, parsePort } from './ports.ts'

test('a port is published on the loopback unless an address is given', () => {
  assert.equal(formatPort(parsePort('8080:80')), '127.0.0.1:8080->80/tcp')
  assert.equal(formatPort(parsePort('0.0.0.0:53:5353/udp')), '0.0.0.0:53->5353/udp')
})

test('what is no port is refused', () => {
  for (const text of ['80', '0:80', '80:65536', '1.2.3:80:80', 'a:b', '80:80/sctp', '1.2.3.400:80:80']) {
    assert.throws(() => parsePort(text), { code: 'BAD_PORT' }, text)
  }
})
