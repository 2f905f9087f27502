import { randomBytes } from 'node:crypto'
import { cpio, directory, file } from '../bundle/cpio.ts'
import { generateKeyPair, type KeyPair } from '../machine/keys.ts'

/** What makes one guest differ from the next, and how to log in to it. */
export interface GuestIdentity {
  hostname: string
  address: string
  nested: boolean
  /** The devices of a container's image and of what it writes, where one is to run. */
  image?: string
  scratch?: string
  /** The network card that leads out and how it is set up; `via` where the hypervisor leads out. */
  outside?: 'via' | { mac: string; address: string; gateway: string; mtu: number }
  /** Largest packet of its network, in bytes. */
  mtu: number
  login: KeyPair
  host: KeyPair
}

export function newIdentity(given: Omit<GuestIdentity, 'login' | 'host'>): GuestIdentity {
  return { ...given, login: generateKeyPair('nestvm'), host: generateKeyPair(given.hostname) }
}

/** The guest's own part of its initramfs, to be appended to the base. */
export function guestInitrd(identity: GuestIdentity): Buffer {
  return cpio([
    file('etc/hostname', `${identity.hostname}\n`),
    file('etc/hosts', `127.0.0.1 localhost\n::1 localhost\n${identity.address} ${identity.hostname}\n`),
    file('etc/machine-id', `${randomBytes(16).toString('hex')}\n`),
    file('etc/nestvm/config', config(identity)),
    file('etc/nestvm/host-key', identity.host.dropbear, 0o600),
    directory('root', 0o700),
    directory('root/.ssh', 0o700),
    file('root/.ssh/authorized_keys', `${identity.login.publicLine}\n`, 0o600),
  ])
}

/** Sourced by the guest's start script; no value holds anything that a shell would see as more than a word. */
function config({ hostname, address, nested, mtu, image = '', scratch = '', outside }: GuestIdentity): string {
  const own = `HOSTNAME=${hostname}\nADDRESS=${address}\nNESTED=${nested ? 1 : 0}\n`
  return `${own}IMAGE=${image}\nSCRATCH=${scratch}\nMTU=${mtu}\n${outsideConfig(outside)}`
}

function outsideConfig(outside: GuestIdentity['outside']): string {
  if (outside === undefined || outside === 'via') return `OUTSIDE=${outside ?? ''}\n`
  const { mac, address, gateway, mtu } = outside
  return `OUTSIDE=${mac}\nOUTSIDE_ADDRESS=${address}\nOUTSIDE_GATEWAY=${gateway}\nOUTSIDE_MTU=${mtu}\n`
}
