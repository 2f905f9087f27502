import { createHash } from 'node:crypto'
import { NestvmError } from '../store/error.ts'

/*
 * All guests in one level 1 guest share its network, 10.0.0.0/8: whatever their level, each has one address in it, and
 * hypervisors route and answer ARP for what lies behind them. So the level 1 guest's QEMU can forward to any of them,
 * and a connection is only forwarded, never wrapped, on its way in. 10.0.0.1 to 10.0.0.3 are that QEMU's own.
 */

/** An address that no other guest of the same level 1 guest has: from the id, and the next one while it is taken. */
export function guestAddress(id: string, taken: ReadonlySet<string>): string {
  const first = createHash('sha256').update(id).digest().readUIntBE(0, 3)
  for (let step = 0; step < usable; step++) {
    const address = toAddress((first + step) % usable)
    if (!taken.has(address)) return address
  }
  throw new NestvmError('NO_ADDRESS', 'all addresses of this guest are taken')
}

/**
 * The name of the socket that leads to an address, in the directory of the level 1 guest's sockets. QEMU cannot take
 * the forwarding of a unix socket back (its hostfwd_remove knows ports only), so it is left for the next guest, which
 * gets the address with it.
 */
export function forwardName(address: string): string {
  return `s${address.split('.').map(Number).map(hex).join('')}`
}

/** The addresses that the sockets in a directory lead to. */
export function forwardedAddresses(names: readonly string[]): string[] {
  return names
    .filter((name) => /^s[0-9a-f]{8}$/.test(name))
    .map((name) => [...Buffer.from(name.slice(1), 'hex')].join('.'))
}

/** Locally administered, in the range that QEMU uses. */
export function macAddress(address: string): string {
  const [, b = 0, c = 0, d = 0] = address.split('.').map(Number)
  return ['52', '54', '00', hex(b), hex(c), hex(d)].join(':')
}

/** Of a level 1 guest's second network card, which leads out. */
export function outsideMac(mac: string): string {
  return mac.replace(/^52:54:00/, '52:54:01')
}

/** 10.1.0.0 to 10.254.255.255; 10.255 is where QEMU's DHCP server, which nobody asks, would begin. */
const usable = 254 << 16

function toAddress(index: number): string {
  const value = index + (1 << 16)
  return `10.${value >> 16}.${(value >> 8) & 0xff}.${value & 0xff}`
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0')
}
