import { homedir, userInfo } from 'node:os'
import { join } from 'node:path'
import { NestvmError } from '../store/error.ts'
import type { Machine } from './machine.ts'
import { run } from './run.ts'

/** How to reach a host over ssh, as its user's OpenSSH configuration says. */
export interface SshSettings {
  /** `ssh://` and what the user wrote. */
  url: string
  /** What the user would write after `ssh` to get there. */
  destination: string
  host: string
  port: number
  user: string
  /** By which name known_hosts may have it, where that is not the host's. */
  hostKeyAlias: string | undefined
  knownHostsFiles: string[]
  identityFiles: string[]
  /** Log in with these files' keys only, even where an agent has more. */
  identitiesOnly: boolean
  /** An agent's socket. */
  agent: string | undefined
  /** A program whose standard input and output lead to the ssh server, where a plain connection does not. */
  proxy: string[] | undefined
}

export function isHostUrl(text: string): boolean {
  return text.startsWith('ssh://')
}

/** `ssh://[user@]host[:port]`. Throws `BAD_HOST`. */
export async function sshSettings(local: Machine, url: string): Promise<SshSettings> {
  const { user, host, port } = parseUrl(url)
  const said = await askOpenSsh(local, [...(user ? ['-l', user] : []), ...(port ? ['-p', port] : []), host])
  // `none` is other than nothing, for which there are defaults.
  const all = (key: string) => said.get(key)?.filter((value) => value !== 'none')
  const one = (key: string) => all(key)?.[0]
  const words = (key: string) => all(key)?.flatMap((line) => line.split(' ').filter(Boolean))
  const settings = {
    host: one('hostname') ?? host,
    port: Number(one('port') ?? port ?? 22),
    user: one('user') ?? user ?? userInfo().username,
  }
  const { expand, expandCommand } = tokens(host, settings)
  return {
    ...{ url, destination: [...(port ? ['-p', port] : []), user ? `${user}@${host}` : host].join(' ') },
    ...settings,
    hostKeyAlias: one('hostkeyalias'),
    knownHostsFiles: [
      ...(words('userknownhostsfile') ?? ['~/.ssh/known_hosts']),
      ...(words('globalknownhostsfile') ?? ['/etc/ssh/ssh_known_hosts']),
    ].map(expand),
    identityFiles: (all('identityfile') ?? ['id_ed25519', 'id_ecdsa', 'id_rsa'].map((name) => `~/.ssh/${name}`)).map(
      expand,
    ),
    identitiesOnly: one('identitiesonly') === 'yes',
    agent: agentSocket(said.get('identityagent')?.[0], expand),
    proxy: proxyCommand(one('proxyjump'), one('proxycommand'), settings, expandCommand),
  }
}

function parseUrl(url: string): { user: string | undefined; host: string; port: string | undefined } {
  const match = /^ssh:\/\/(?:([^@/\s]+)@)?(?:\[([0-9a-f:.%\w]+)\]|([\w.][\w.-]*))(?::(\d{1,5}))?\/?$/i.exec(url)
  const host = match?.[2] ?? match?.[3]
  const user = match?.[1]
  if (host === undefined || user?.startsWith('-') || Number(match?.[4] ?? 1) > 65_535) {
    throw new NestvmError('BAD_HOST', `${JSON.stringify(url)} does not name a host`, {
      hint: 'write ssh://host, ssh://user@host or ssh://user@host:port',
      exitStatus: 2,
    })
  }
  return { user, host, port: match?.[4] }
}

/** What `ssh -G` prints: a keyword and its value a line, each keyword once or more. Empty where there is no ssh. */
async function askOpenSsh(local: Machine, args: readonly string[]): Promise<Map<string, string[]>> {
  const settings = new Map<string, string[]>()
  try {
    const { stdout } = await run(local, ['ssh', '-G', ...args], { timeoutMs: 20_000 })
    for (const line of stdout.split('\n')) {
      const [, key = '', value = ''] = /^(\S+) (.*)$/.exec(line) ?? []
      if (key !== '') settings.set(key, [...(settings.get(key) ?? []), value])
    }
  } catch (error) {
    if (!(error instanceof NestvmError && error.code === 'NOT_FOUND')) throw error
  }
  return settings
}

/** ssh_config(5), "TOKENS": `ssh -G` prints them as they were written. */
function tokens(given: string, { host, port, user }: { host: string; port: number; user: string }) {
  const home = homedir()
  const values: Record<string, string> = { '%': '%', d: home, h: host, n: given, p: `${port}`, r: user }
  values.u = userInfo().username
  values.i = `${userInfo().uid}`
  const expandCommand = (text: string) => text.replace(/%([%a-zA-Z])/g, (all, letter) => values[letter] ?? all)
  const expand = (path: string) => expandCommand(path.startsWith('~/') ? join(home, path.slice(2)) : path)
  return { expand, expandCommand }
}

/** The value is a path, the name of a variable after `$`, `SSH_AUTH_SOCK`, or `none`. */
function agentSocket(value: string | undefined, expand: (path: string) => string): string | undefined {
  if (value === 'none') return undefined
  if (value === undefined || value === 'SSH_AUTH_SOCK') return process.env.SSH_AUTH_SOCK || undefined
  return value.startsWith('$') ? process.env[value.slice(1).replace(/[{}]/g, '')] : expand(value)
}

/** A jump is left to ssh itself, which knows its keys; a command is run by a shell, as ssh would. */
function proxyCommand(
  jumps: string | undefined,
  command: string | undefined,
  { host, port }: { host: string; port: number },
  expand: (text: string) => string,
): string[] | undefined {
  if (jumps !== undefined) {
    const hops = jumps.split(',')
    const last = hops.pop() ?? ''
    const through = hops.length > 0 ? ['-J', hops.join(',')] : []
    // Only a URL can carry a port there; to a host without one, `ssh` says it as it stands.
    const target = /:\d+$/.test(last) ? `ssh://${last.replace(/^ssh:\/\//, '')}` : last
    const where = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
    return ['ssh', '-o', 'BatchMode=yes', ...through, '-W', where, target]
  }
  return command === undefined ? undefined : ['sh', '-c', `exec ${expand(command)}`]
}
