import { readFile } from 'node:fs/promises'
import type { IdentityCallback, ParsedKey } from 'ssh2'
import ssh2 from 'ssh2'
import { errorCode } from '../store/errno.ts'
import type { Login, SshTarget } from './handshake.ts'
import type { SshSettings } from './ssh-settings.ts'

/** The ways in that the user's configuration names: the agent's keys, then those of files that need no passphrase. */
export async function findLogins(settings: SshSettings): Promise<Pick<SshTarget, 'logins' | 'loginHint'>> {
  const files = await Promise.all(settings.identityFiles.map(readIdentity))
  const chosen = files.flatMap(({ publicBlob }) => publicBlob ?? [])
  const agent = settings.agent && new Agent(settings.agent, settings.identitiesOnly ? chosen : undefined)
  const logins: Login[] = [...(agent ? [{ agent }] : []), ...files.flatMap(({ key }) => (key ? [{ key }] : []))]
  return { logins, loginHint: hint(settings, files) }
}

interface Identity {
  path: string
  /** Absent where it is encrypted, or of a kind that ssh2 does not know. */
  key?: Buffer
  encrypted?: boolean
  publicBlob?: Buffer
}

async function readIdentity(path: string): Promise<Identity> {
  const [key, line] = await Promise.all([read(path), read(`${path}.pub`)])
  const publicBlob = line && Buffer.from(line.toString().split(' ')[1] ?? '', 'base64')
  if (key === undefined) return { path, publicBlob }
  const parsed = ssh2.utils.parseKey(key)
  // The file of a key that an agent holds may be its public one.
  if (!(parsed instanceof Error))
    return { path, key: parsed.isPrivateKey() ? key : undefined, publicBlob: parsed.getPublicSSH() }
  return { path, publicBlob, encrypted: /encrypted|passphrase/i.test(parsed.message) }
}

async function read(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(errorCode(error) ?? '')) return undefined
    throw error
  }
}

function hint({ agent, destination }: SshSettings, files: readonly Identity[]): string {
  const encrypted = files.find((file) => file.encrypted)
  if (!encrypted) return `see to it that this works: ssh -o BatchMode=yes ${destination} true`
  const how = agent ? '' : 'eval "$(ssh-agent)" && '
  return `the key ${encrypted.path} has a passphrase, so an agent has to hold it: ${how}ssh-add ${encrypted.path}`
}

/** An agent, of whose keys only some may be tried: a server gives up after six or so. */
class Agent extends ssh2.OpenSSHAgent {
  private readonly only: readonly Buffer[] | undefined

  constructor(socket: string, only: readonly Buffer[] | undefined) {
    super(socket)
    this.only = only
  }

  override getIdentities(done: IdentityCallback<ParsedKey>): void {
    super.getIdentities((error, keys) => {
      // An agent that is gone is as good as one without keys: there may be files.
      if (error || !keys) return done(undefined, [])
      done(undefined, this.only ? keys.filter((key) => 'getPublicSSH' in key && this.wanted(key)) : keys)
    })
  }

  private wanted(key: ParsedKey): boolean {
    return this.only?.some((blob) => blob.equals(key.getPublicSSH())) ?? true
  }
}
