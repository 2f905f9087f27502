import { readFile } from 'node:fs/promises'
import { timeLimit } from '../machine/limit.ts'
import type { Address, Machine } from '../machine/machine.ts'
import type { SshMachine } from '../machine/ssh.ts'
import { NestvmError } from '../store/error.ts'
import { machinePaths } from '../store/paths.ts'
import { answerLimitMs } from './plan.ts'
import type { GuestRecord } from './record.ts'

/** Connects to a running guest. Throws when it does not answer within its level's limit. */
export async function reach(host: Machine, record: GuestRecord, signal?: AbortSignal): Promise<SshMachine> {
  const limit = timeLimit(answerLimitMs(record.level))
  const stop = signal ? AbortSignal.any([signal, limit]) : limit
  return connectGuest(host, record, stop)
}

/** Connects to a guest whose ssh server listens. */
export async function connectGuest(host: Machine, record: GuestRecord, signal: AbortSignal): Promise<SshMachine> {
  const key = await readFile(machinePaths(record.id).key)
  // A restored guest that runs one command is used without ssh, and done before its library were loaded.
  const { SshMachine } = await import('../machine/ssh.ts')
  const expected = Buffer.from(record.hostKey, 'base64')
  return SshMachine.connect(
    {
      name: record.path,
      user: 'root',
      logins: [{ key }],
      distrust: (shown) => (shown.equals(expected) ? undefined : unexpectedKey(record)),
      transport: (stop) => host.connect(sshAddress(record), stop),
    },
    signal,
  )
}

/** Where its host reaches a guest's ssh server: Firecracker has no socket for it, but a level 1 guest on the bridge. */
export function sshAddress({ engine, parent, bridge, sshSocket }: GuestRecord): Address {
  const bridged = engine === 'firecracker' && parent === undefined ? bridge : undefined
  return bridged ? { host: bridged.address, port: 22 } : { unix: sshSocket }
}

function unexpectedKey({ path }: GuestRecord): NestvmError {
  return new NestvmError(
    'HOST_KEY_MISMATCH',
    `cannot connect to ${path}: it shows another host key than the one it was given`,
  )
}
