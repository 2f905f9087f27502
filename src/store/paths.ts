import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, type Stats } from 'node:fs'
import { homedir, tmpdir, userInfo } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { NestvmError } from './error.ts'

// Everything that nestvm keeps on disk is named here. The environment is read at each call.

/** Kept until removed: the bundle, and images by digest. */
export function dataPaths() {
  const dir = base('XDG_DATA_HOME', '.local/share')
  return { dir, bundle: join(dir, 'bundle'), images: join(dir, 'images'), lock: join(dir, 'lock') }
}

/** What the user writes. */
export function configPaths() {
  const dir = base('XDG_CONFIG_HOME', '.config')
  return { dir, profiles: join(dir, 'profiles') }
}

/** May be deleted at any time; comes back when needed. */
export function cachePaths() {
  const dir = base('XDG_CACHE_HOME', '.cache')
  return { dir, snapshots: join(dir, 'snapshots'), downloads: join(dir, 'downloads'), lock: join(dir, 'lock') }
}

export function statePaths() {
  const dir = base('XDG_STATE_HOME', '.local/state')
  return {
    dir,
    machines: join(dir, 'machines'),
    /** What containers write, where that is kept: each file is named in one machine's record. */
    disks: join(dir, 'disks'),
    /** What the builds of kernels said. */
    kernelLogs: join(dir, 'kernel-logs'),
    lock: join(dir, 'lock'),
  }
}

/** What is known of KVM on a host; `name` is as records have it. */
export function kvmProbePath(name: string): string {
  const suffix = name === 'host' ? '' : `-${createHash('sha256').update(name).digest('hex').slice(0, 12)}`
  return join(statePaths().dir, `kvm-probe${suffix}.json`)
}

/** The files of one machine. */
export function machinePaths(id: string) {
  const dir = join(statePaths().machines, fileName(id))
  return {
    dir,
    record: join(dir, 'record.json'),
    /** Logs in to the guest, in OpenSSH's format, and what its server is known by. */
    key: join(dir, 'key'),
    knownHosts: join(dir, 'known_hosts'),
    /** The process that serves its volumes, and what it is told. */
    volumeServer: join(dir, 'volume-server'),
    volumeServerFile: join(dir, 'volumes.json'),
    /** Held by the process that brings its move to an end. */
    moveLock: join(dir, 'move.lock'),
    /** What is known of the KVM in it. */
    kvmProbe: join(dir, 'kvm-probe.json'),
    /** The files of an engine that runs on this host. */
    engine: join(dir, 'engine'),
  }
}

/** The files of one snapshot, given its directory: a child of `cachePaths().snapshots`. */
export function snapshotFiles(dir: string) {
  return {
    record: join(dir, 'snapshot.json'),
    /** The level 1 guest's memory, with those of all guests in it. Sparse; restored guests map it. */
    ram: join(dir, 'ram'),
    /** Its devices, as QEMU saves them. */
    state: join(dir, 'state'),
  }
}

/** The directory for one machine's sockets: in the runtime directory, under a name short enough for `sun_path`. */
export function socketDir(id: string): string {
  const name = fileName(id)
  const short = name.length <= 12 ? name : createHash('sha256').update(name).digest('hex').slice(0, 12)
  return join(runtimeDir(), short)
}

/** Throws `SOCKET_PATH_TOO_LONG` rather than let the kernel refuse or truncate it. */
export function socketPath(id: string, name: string): string {
  return checkSocketPath(join(socketDir(id), fileName(name)), 'XDG_RUNTIME_DIR')
}

/** Throws `SOCKET_PATH_TOO_LONG`, too; `variable` is what to set to mend it. */
export function checkSocketPath(path: string, variable: string): string {
  if (Buffer.byteLength(path) < sunPathSize) return path
  throw new NestvmError('SOCKET_PATH_TOO_LONG', `the socket path ${path} has ${sunPathSize} bytes or more`, {
    hint: `set ${variable} to a directory with a short name`,
    details: { path },
  })
}

/** Created if absent, mode 0700. Throws `UNSAFE_RUNTIME_DIR` when somebody else could reach into it. */
export function runtimeDir(): string {
  const dir = runtimePath()
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const problem = unsafe(lstatSync(dir))
  if (problem === undefined) return dir
  throw new NestvmError('UNSAFE_RUNTIME_DIR', `the runtime directory ${dir} ${problem}`, {
    hint: `remove ${dir}, or set XDG_RUNTIME_DIR to a directory of your own with mode 0700`,
    details: { path: dir },
  })
}

/** The same where it is there already, and nobody else can reach into it. */
export function presentRuntimeDir(): string | undefined {
  const dir = runtimePath()
  const stats = lstatSync(dir, { throwIfNoEntry: false })
  return stats && unsafe(stats) === undefined ? dir : undefined
}

function runtimePath(): string {
  const given = process.env.XDG_RUNTIME_DIR
  return given && ownDirectory(given) ? join(given, 'nestvm') : join(tmpdir(), `nestvm-${userInfo().uid}`)
}

/** Bytes of `sun_path` in unix(7), its final NUL included. */
const sunPathSize = 108

/** The XDG specification says to ignore a relative path. */
function base(variable: string, underHome: string): string {
  const given = process.env[variable]
  return join(given && isAbsolute(given) ? given : join(homedir(), underHome), 'nestvm')
}

/** Under sudo and in containers the variable often names another user's directory, or none. */
function ownDirectory(path: string): boolean {
  const stats = isAbsolute(path) ? lstatSync(path, { throwIfNoEntry: false }) : undefined
  return stats?.isDirectory() === true && stats.uid === userInfo().uid
}

function unsafe(stats: Stats): string | undefined {
  if (!stats.isDirectory()) return 'is not a directory'
  if (stats.uid !== userInfo().uid) return `belongs to user ${stats.uid}`
  return (stats.mode & 0o077) === 0 ? undefined : 'is open to other users'
}

/** A machine's id is joined to a path that is later removed as a whole. */
function fileName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return name
  throw new NestvmError('BAD_NAME', `${JSON.stringify(name)} cannot name a file`)
}
