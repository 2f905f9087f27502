import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PublishedPort } from '../network/ports.ts'
import { withRelays } from './relay.ts'

const port = (hostPort: number, protocol: PublishedPort['protocol'] = 'tcp'): PublishedPort => ({
  ...{ protocol, hostAddress: '127.0.0.1', hostPort, guestPort: 80 },
})

test('each TCP port gets a relay that no relative has, above what Linux gives by itself; UDP has none', () => {
  const first = withRelays([port(1), port(2, 'udp'), port(3)], [])
  assert.equal(first[1]?.relay, undefined)
  const second = withRelays([port(4), port(5)], [{ ports: first }, { ports: [port(6)] }])
  const relays = [...first, ...second].flatMap(({ relay }) => relay ?? [])
  assert.equal(new Set(relays).size, 4)
  assert.ok(relays.every((relay) => relay > 60_999 && relay < 65_536))
})

test('more than there are is an error', () => {
  const most = withRelays(
    Array.from({ length: 4536 }, (_, index) => port(index + 1)),
    [],
  )
  assert.throws(() => withRelays([port(1)], [{ ports: most }]), { code: 'TOO_MANY_PORTS' })
})
