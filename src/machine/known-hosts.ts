import { createHmac } from 'node:crypto'

// The files known_hosts of OpenSSH: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

/** What the files say about a host's key. `other`: they know the host, but by keys of other types only. */
export type KeyVerdict = 'known' | 'unknown' | 'other' | 'changed' | 'revoked'

/** `name` is as `knownHostsName` gives it; the key in the form of RFC 4253, section 6.6. */
export function judgeHostKey(files: readonly string[], name: string, key: Buffer): KeyVerdict {
  const blob = key.toString('base64')
  const all = entriesOf(files)
  if (all.some(({ marker, key }) => marker === '@revoked' && key === blob)) return 'revoked'
  const entries = all.filter((entry) => entry.marker === undefined && matches(entry.hosts, name))
  if (entries.some((entry) => entry.key === blob)) return 'known'
  if (entries.length === 0) return 'unknown'
  return entries.some(({ type }) => type === keyType(key)) ? 'changed' : 'other'
}

/** The types of the keys that a host is known by: a client has to ask for one of them. */
export function knownKeyTypes(files: readonly string[], name: string): string[] {
  const entries = entriesOf(files).filter(({ marker, hosts }) => marker === undefined && matches(hosts, name))
  return [...new Set(entries.map(({ type }) => type))]
}

export function knownHostsName(host: string, port: number): string {
  return port === 22 ? host.toLowerCase() : `[${host.toLowerCase()}]:${port}`
}

function keyType(key: Buffer): string {
  return key.subarray(4, 4 + key.readUInt32BE(0)).toString('latin1')
}

interface Entry {
  /** `@revoked`, or `@cert-authority`, whose certificates ssh2 does not know. */
  marker: string | undefined
  hosts: string
  type: string
  key: string
}

function entriesOf(files: readonly string[]): Entry[] {
  return files.flatMap((text) =>
    text.split('\n').flatMap((line) => {
      const words = line.trim().split(/\s+/)
      const marker = words[0]?.startsWith('@') ? words.shift() : undefined
      const [hosts, type, key] = words
      return hosts && type && key && !hosts.startsWith('#') ? [{ marker, hosts, type, key }] : []
    }),
  )
}

/** A pattern with `!` before it excludes a host, whatever other patterns say. */
function matches(hosts: string, name: string): boolean {
  if (hosts.startsWith('|1|')) return matchesHash(hosts, name)
  const patterns = hosts.toLowerCase().split(',')
  const excluded = patterns.some((pattern) => pattern.startsWith('!') && like(pattern.slice(1), name))
  return !excluded && patterns.some((pattern) => !pattern.startsWith('!') && like(pattern, name))
}

/** `|1|SALT|HASH`: HMAC-SHA1 of the name. */
function matchesHash(hosts: string, name: string): boolean {
  const [, , salt = '', hash] = hosts.split('|')
  return createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest('base64') === hash
}

function like(pattern: string, name: string): boolean {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&')
  return new RegExp(`^${escaped.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(name)
}
