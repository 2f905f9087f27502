import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkUnpublished, parsePort } from './ports.ts'

test('a port is published on the loopback unless an address is given', () => {
  const loopback = { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 8080, guestPort: 80 }
  assert.deepEqual(parsePort('8080:80'), loopback)
  const anywhere = { protocol: 'udp', hostAddress: '0.0.0.0', hostPort: 53, guestPort: 5353 }
  assert.deepEqual(parsePort('0.0.0.0:53:5353/udp'), anywhere)
})

test('what is no port is refused', () => {
  for (const text of ['80', '0:80', '80:65536', '1.2.3:80:80', 'a:b', '80:80/sctp', '1.2.3.400:80:80']) {
    assert.throws(() => parsePort(text), { code: 'BAD_PORT' }, text)
  }
})

test('a port that another guest publishes is not published again, and so not taken back from it either', () => {
  const others = [parsePort('8080:80'), parsePort('53:53/udp')]
  assert.throws(() => checkUnpublished([parsePort('81:80'), parsePort('8080:8000')], others), { code: 'PORT_TAKEN' })
  checkUnpublished([parsePort('53:53'), parsePort('127.0.0.2:8080:80'), parsePort('8081:80')], others)
})
