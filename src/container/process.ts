import type { ImageConfig } from '../image/config.ts'
import { type ResolvedUser, resolveUser } from '../image/user.ts'
import { NestvmError } from '../store/error.ts'

/** What a command line says of one process in a container. */
export interface ProcessRequest {
  env: Readonly<Record<string, string>>
  cwd?: string
  /** As `resolveUser` takes it. */
  user?: string
  /** Its terminal, and how programs are told of its kind. */
  tty?: { term?: string }
}

/** What the image says of them all, and the files that user names are looked up in. */
export interface ProcessDefaults {
  config: Pick<ImageConfig, 'env' | 'workdir' | 'user'>
  passwd: string
  group: string
  hostname: string
  privileged: boolean
  /** The guest is a hypervisor: where it has what guests are started from. */
  layer?: string
}

/** The `process` of an OCI runtime configuration (runtime-spec, config.md), as far as it is used here. */
export interface OciProcess {
  terminal: boolean
  args: readonly string[]
  env: readonly string[]
  cwd: string
  user: { uid: number; gid: number; additionalGids: readonly number[] }
  capabilities: Record<'bounding' | 'effective' | 'permitted', readonly string[]>
  rlimits: readonly { type: string; soft: number; hard: number }[]
  noNewPrivileges: boolean
}

/** Throws `NO_SUCH_USER` and `NO_SUCH_GROUP`. */
export function ociProcess(argv: readonly string[], request: ProcessRequest, defaults: ProcessDefaults): OciProcess {
  const { config, privileged } = defaults
  const user = resolveUser(request.user ?? config.user, defaults)
  const granted = privileged ? everyCapability : defaultCapabilities
  return {
    terminal: request.tty !== undefined,
    args: argv,
    env: environment(request, defaults, user),
    cwd: request.cwd ?? config.workdir,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.groups },
    // As in docker: others than root have none in effect, but their programs may be given some by file capabilities.
    capabilities: {
      bounding: granted,
      effective: user.uid === 0 ? granted : [],
      permitted: user.uid === 0 ? granted : [],
    },
    rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1_048_576, hard: 1_048_576 }],
    noNewPrivileges: false,
  }
}

/** The image's entrypoint with the command that was asked for, or with its own. Throws `NO_COMMAND`. */
export function commandOf(config: Pick<ImageConfig, 'entrypoint' | 'cmd'>, command: readonly string[]): string[] {
  const argv = [...config.entrypoint, ...(command.length > 0 ? command : config.cmd)]
  if (argv.length > 0) return argv
  throw new NestvmError('NO_COMMAND', 'the image names no command to run', {
    hint: 'nestvm run IMAGE -- COMMAND',
    exitStatus: 2,
  })
}

function environment(
  { env, tty }: ProcessRequest,
  { config, hostname, layer }: ProcessDefaults,
  { home }: ResolvedUser,
): string[] {
  const variables = new Map([
    ['PATH', '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
    ['HOSTNAME', hostname],
    ['HOME', home],
    ...(tty ? [['TERM', 'xterm'] as const] : []),
    // For a nestvm in the container.
    ...(layer ? [['NESTVM_BUNDLE', layer] as const] : []),
    ...config.env.map((line) => splitVariable(line)),
    ...(tty?.term ? [['TERM', tty.term] as const] : []),
    ...Object.entries(env),
  ])
  return [...variables].map(([name, value]) => `${name}=${value}`)
}

function splitVariable(line: string): [string, string] {
  const [name = '', value = ''] = line.split(/=(.*)/s)
  return [name, value]
}

/** The set that docker, podman and containerd grant. */
const defaultCapabilities = [
  ...['CAP_AUDIT_WRITE', 'CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_KILL', 'CAP_MKNOD'],
  ...['CAP_NET_BIND_SERVICE', 'CAP_NET_RAW', 'CAP_SETFCAP', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_SETUID'],
  'CAP_SYS_CHROOT',
]

/** capabilities(7), up to Linux 5.9's CAP_CHECKPOINT_RESTORE: none was added since. */
const everyCapability = [
  ...['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_DAC_READ_SEARCH', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_KILL', 'CAP_SETGID'],
  ...['CAP_SETUID', 'CAP_SETPCAP', 'CAP_LINUX_IMMUTABLE', 'CAP_NET_BIND_SERVICE', 'CAP_NET_BROADCAST'],
  ...['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_IPC_LOCK', 'CAP_IPC_OWNER', 'CAP_SYS_MODULE', 'CAP_SYS_RAWIO'],
  ...['CAP_SYS_CHROOT', 'CAP_SYS_PTRACE', 'CAP_SYS_PACCT', 'CAP_SYS_ADMIN', 'CAP_SYS_BOOT', 'CAP_SYS_NICE'],
  ...['CAP_SYS_RESOURCE', 'CAP_SYS_TIME', 'CAP_SYS_TTY_CONFIG', 'CAP_MKNOD', 'CAP_LEASE', 'CAP_AUDIT_WRITE'],
  ...['CAP_AUDIT_CONTROL', 'CAP_SETFCAP', 'CAP_MAC_OVERRIDE', 'CAP_MAC_ADMIN', 'CAP_SYSLOG', 'CAP_WAKE_ALARM'],
  ...['CAP_BLOCK_SUSPEND', 'CAP_AUDIT_READ', 'CAP_PERFMON', 'CAP_BPF', 'CAP_CHECKPOINT_RESTORE'],
]
