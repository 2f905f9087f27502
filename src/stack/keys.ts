import { readFile } from 'node:fs/promises'
import { machinePaths } from '../store/paths.ts'
import { writeFileAtomic } from '../store/write.ts'
import type { GuestIdentity } from './initrd.ts'
import type { GuestRecord } from './record.ts'

/** Writes how to log in to a guest, and what its ssh server is known by. */
export async function writeKeys({ id, path }: GuestRecord, { login, host }: GuestIdentity): Promise<void> {
  const { key, knownHosts } = machinePaths(id)
  const [type, text] = host.publicLine.split(' ')
  await Promise.all([writeFileAtomic(key, login.openssh), writeFileAtomic(knownHosts, `${path} ${type} ${text}\n`)])
}

/** What its ssh server is known by, under the name that the guest has now. */
export async function movedKeys({ id, path }: Pick<GuestRecord, 'id' | 'path'>): Promise<void> {
  const { knownHosts } = machinePaths(id)
  const line = await readFile(knownHosts, 'utf8')
  await writeFileAtomic(knownHosts, line.replace(/^\S+/, path))
}
