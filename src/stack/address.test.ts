import assert from 'node:assert/strict'
import { test } from 'node:test'
import { forwardedAddresses, forwardName, guestAddress, macAddress } from './address.ts'

test('an id always gets the same address, in 10.1.0.0 to 10.254.255.255', () => {
  for (let id = 0; id < 2000; id++) {
    const address = guestAddress(`id${id}`, new Set())
    assert.equal(guestAddress(`id${id}`, new Set()), address)
    const parts = address.split('.').map(Number)
    assert.equal(parts.length, 4)
    const [a, b = -1, c = -1, d = -1] = parts
    assert.ok(a === 10 && b >= 1 && b <= 254 && c >= 0 && c <= 255 && d >= 0 && d <= 255, address)
  }
})

test('an address that is taken is passed over', () => {
  const first = guestAddress('a', new Set())
  const second = guestAddress('a', new Set([first]))
  const third = guestAddress('a', new Set([first, second]))
  assert.equal(new Set([first, second, third]).size, 3)
})

test('the MAC address holds what tells one address from another', () => {
  assert.equal(macAddress('10.1.2.255'), '52:54:00:01:02:ff')
  assert.notEqual(macAddress('10.1.2.3'), macAddress('10.1.3.2'))
})

test('the name of a socket tells the address that it leads to', () => {
  assert.equal(forwardName('10.1.200.3'), 's0a01c803')
  assert.deepEqual(forwardedAddresses(['qmp', 's0a01c803', 'console', 's0a01c8']), ['10.1.200.3'])
})
