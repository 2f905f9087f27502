import { readFile } from 'node:fs/promises'
import type { ConnectConfig, ServerHostKeyAlgorithm } from 'ssh2'
import { NestvmError } from '../store/error.ts'
import type { SshTarget } from './handshake.ts'
import { judgeHostKey, knownHostsName, knownKeyTypes } from './known-hosts.ts'
import { timeLimit } from './limit.ts'
import type { Machine } from './machine.ts'
import { throughProxy } from './proxy.ts'
import { SshMachine } from './ssh.ts'
import { findLogins } from './ssh-login.ts'
import { type SshSettings, sshSettings } from './ssh-settings.ts'

/** How long a host may take to let us in. A jump host may be between. */
const limitMs = 20_000

/**
 * Connects to a host as the user's own ssh would, without asking anything. Throws `BAD_HOST`, `CONNECT_FAILED` within
 * a limit, `HOST_KEY_UNKNOWN`, `HOST_KEY_CHANGED`, `LOGIN_FAILED`, or the signal's reason.
 */
export async function connectHost(local: Machine, url: string, signal: AbortSignal): Promise<SshMachine> {
  const settings = await sshSettings(local, url)
  const limit = timeLimit(limitMs)
  try {
    return await SshMachine.connect(await targetOf(local, settings), AbortSignal.any([signal, limit]))
  } catch (error) {
    signal.throwIfAborted()
    if (!limit.aborted) throw error
    throw new NestvmError('CONNECT_FAILED', `${url} did not answer within ${limitMs / 1000} s`, {
      hint: `ssh ${settings.destination} true`,
      details: { host: settings.host, port: settings.port },
      cause: error,
    })
  }
}

async function targetOf(local: Machine, settings: SshSettings): Promise<SshTarget> {
  const { url, host, port, user, hostKeyAlias, knownHostsFiles } = settings
  const files = await Promise.all(knownHostsFiles.map((path) => readFile(path, 'utf8').catch(() => '')))
  const name = hostKeyAlias?.toLowerCase() ?? knownHostsName(host, port)
  return {
    ...{ name: url, user, ...(await findLogins(settings)) },
    transport: (stop) =>
      settings.proxy ? throughProxy(local, settings.proxy, stop) : local.connect({ host, port }, stop),
    distrust: (key) => explainKey(settings, judgeHostKey(files, name, key)),
    // ssh2's own choices but for the order of the host's keys.
    algorithms: { serverHostKey: keyOrder(knownKeyTypes(files, name)) } satisfies ConnectConfig['algorithms'],
  }
}

function explainKey(settings: SshSettings, verdict: ReturnType<typeof judgeHostKey>): NestvmError | undefined {
  if (verdict === 'known') return undefined
  const { url, destination, knownHostsFiles, host, port } = settings
  const details = { machine: url, knownHostsFiles }
  if (verdict === 'changed' || verdict === 'revoked') {
    const what = verdict === 'changed' ? 'is not the one in known_hosts' : 'is revoked in known_hosts'
    return new NestvmError('HOST_KEY_CHANGED', `the host key of ${url} ${what}: it may be another machine`, {
      hint: `if it was set up anew: ssh-keygen -R '${knownHostsName(host, port)}', then: ssh ${destination} true`,
      details,
    })
  }
  return new NestvmError('HOST_KEY_UNKNOWN', `the host key of ${url} is not in known_hosts`, {
    hint: `run once, and compare the key that it shows: ssh ${destination} true`,
    details,
  })
}

const keyAlgorithms: Record<string, readonly ServerHostKeyAlgorithm[]> = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
}

/** A host shows the first key that the client asks for and it has: the known ones come first. */
function keyOrder(known: readonly string[]): ServerHostKeyAlgorithm[] {
  const types = new Set([...known, ...Object.keys(keyAlgorithms)])
  return [...types].flatMap((type) => keyAlgorithms[type] ?? [])
}
