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
