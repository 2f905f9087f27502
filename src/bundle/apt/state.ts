import { constants } from 'node:fs'
import { access, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Machine } from '../../machine/machine.ts'
import { writeFileAtomic } from '../../store/write.ts'
import { apt } from './command.ts'
import { readKeyring } from './keyring.ts'
import { findMirror } from './mirror.ts'

/** An apt of our own: it shares nothing with the host's but the way to the network. */
export interface AptState {
  machine: Machine
  /** For APT_CONFIG. */
  config: string
  /** Downloaded packages; those cut short too, which apt completes. */
  archives: string
  /** Always empty: a plan made with it lists every package, downloaded or not. */
  noArchives: string
}

/**
 * Sets up apt's directories below `dir` for one of Debian's architectures. Host settings for `Acquire` (proxies,
 * certificates, time-outs) and passwords (auth.conf) are taken over; those about hooks, paths and trust are not.
 */
export async function prepareApt(
  machine: Machine,
  {
    dir,
    debianArch,
    suites,
    signal,
  }: { dir: string; debianArch: string; suites: readonly string[]; signal?: AbortSignal },
): Promise<AptState> {
  const mirror = await findMirror(machine, signal)
  const keyring = await readKeyring()
  const state: AptState = {
    machine,
    config: join(dir, 'apt.conf'),
    archives: join(dir, 'archives'),
    noArchives: join(dir, 'no-archives'),
  }

  for (const name of [
    'lists/partial',
    'archives/partial',
    'no-archives/partial',
    'etc/preferences.d',
    'etc/apt.conf.d',
  ]) {
    await mkdir(join(dir, name), { recursive: true, mode: 0o700 })
  }
  await rm(join(dir, 'etc/trusted.gpg.d'), { recursive: true, force: true })
  await mkdir(join(dir, 'etc/trusted.gpg.d'))
  await writeFile(join(dir, 'etc/trusted.gpg.d', `keyring.${keyring.extension}`), keyring.data)
  await writeFile(join(dir, 'status'), '')
  await writeFile(join(dir, 'etc/sources.list'), suites.map((suite) => `deb ${mirror} ${suite} main\n`).join(''))
  // It may hold a proxy's password.
  await writeFileAtomic(state.config, await configuration(machine, dir, debianArch, signal), 0o600)
  return state
}

async function configuration(machine: Machine, dir: string, debianArch: string, signal?: AbortSignal): Promise<string> {
  const settings: [string, string][] = [
    ['Dir', dir],
    ['Dir::State', dir],
    ['Dir::State::status', join(dir, 'status')],
    ['Dir::State::lists', 'lists/'],
    ['Dir::Cache', dir],
    ['Dir::Cache::archives', 'archives/'],
    // The other cache of the lists only helps hosts whose packages change; it has the same 60 MB.
    ['Dir::Cache::srcpkgcache', ''],
    ['Dir::Etc', join(dir, 'etc')],
    ...(await readablePasswords(machine, signal)),
    ['APT::Architecture', debianArch],
    ['APT::Architectures', debianArch],
    ['APT::Install-Recommends', 'false'],
    ['APT::Install-Suggests', 'false'],
    ['APT::Get::AllowUnauthenticated', 'false'],
    // As root, apt would download as a user that may not enter our directories.
    ['APT::Sandbox::User', 'root'],
    ['APT::Update::Error-Mode', 'any'],
    ['Acquire::AllowInsecureRepositories', 'false'],
    ['Acquire::AllowWeakRepositories', 'false'],
    ['Acquire::AllowDowngradeToInsecureRepositories', 'false'],
    ['Acquire::ForceHash', 'SHA256'],
    ['Acquire::GzipIndexes', 'true'],
    ['Acquire::Languages', 'none'],
    ['Acquire::PDiffs', 'false'],
    ['Acquire::Retries', '3'],
    ['Acquire::http::Timeout', '20'],
    ['Acquire::https::Timeout', '20'],
    ['Acquire::ftp::Timeout', '20'],
  ]
  return `${await hostAcquireSettings(machine, signal)}${settings.map(([key, value]) => `${key} "${value}";\n`).join('')}`
}

/** Lines such as `Acquire::http::Proxy "...";`, which apt-config prints in the form that apt reads. */
async function hostAcquireSettings(machine: Machine, signal?: AbortSignal): Promise<string> {
  const dump = await apt(machine, ['apt-config', 'dump'], { signal, timeoutMs: 30_000 })
  const lines = dump.split('\n').filter((line) => line.startsWith('Acquire::') && !ownAcquireSettings.test(line))
  return lines.map((line) => `${line}\n`).join('')
}

/** What is fetched and what is trusted is not the host's to say. */
const ownAcquireSettings =
  /^Acquire::(Allow|AptByHash|By-Hash|Changelogs|CompressionTypes|ForceHash|GzipIndexes|IndexTargets|Languages|PDiffs|cdrom)/i

/** An auth.conf that the user may not read would make apt fail. */
async function readablePasswords(machine: Machine, signal?: AbortSignal): Promise<[string, string][]> {
  const keys = ['Dir::Etc::netrc', 'Dir::Etc::netrcparts']
  const found: [string, string][] = []
  for (const key of keys) {
    const output = await apt(machine, ['apt-config', 'shell', 'path', `${key}/f`], { signal, timeoutMs: 30_000 })
    const path = /^path='(.*)'$/m.exec(output)?.[1]
    if (path !== undefined && (await readable(path))) found.push([key, path])
  }
  return found
}

async function readable(path: string): Promise<boolean> {
  return access(path, constants.R_OK).then(
    () => true,
    () => false,
  )
}
