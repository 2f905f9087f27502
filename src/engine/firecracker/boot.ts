import { architectures } from '../architecture.ts'
import type { QemuSpec } from '../qemu/argv.ts'
import type { ApiRequest } from './api.ts'

/** Everything that decides a Firecracker guest; what it shares with QEMU's means the same. */
export type FirecrackerSpec = Pick<
  QemuSpec,
  'name' | 'arch' | 'cpus' | 'memoryMiB' | 'nested' | 'kernel' | 'kernelArguments' | 'disks' | 'mac' | 'files'
> & {
  /** The program, on the machine that it runs on. */
  program: string
  /** A tap device there. */
  tap: string
}

/**
 * Starts Firecracker, which then waits for requests. Its serial port is its standard output; it writes no pid file, and
 * what it logs would be in the guest's log. The shell becomes Firecracker, so that its pid is the one written.
 */
export function firecrackerCommand({ program, name, arch, nested, files }: FirecrackerSpec): string[] {
  const nv2 = nested && arch === 'arm64' ? ['--enable-nv2'] : []
  return [
    ...['sh', '-c', startScript, 'sh', files.pidFile, files.kernelLog],
    ...[program, '--id', idOf(name), '--api-sock', files.apiSocket],
    ...['--log-path', files.engineLog, '--level', 'Warning', ...nv2],
  ]
}

const startScript = 'echo $$ > "$1" && log=$2 && shift 2 && exec "$@" > "$log"'

/** It takes letters, digits and hyphens, at most 64 (MAX_INSTANCE_ID_LEN in its utils/validators.rs). */
function idOf(name: string): string {
  return name.replaceAll('/', '-').slice(0, 64)
}

/** What Firecracker is told, in this order, for the guest to boot. Paths are of the machine that it runs on. */
export function bootRequests(spec: FirecrackerSpec): ApiRequest[] {
  const { arch, cpus, memoryMiB, nested, kernel, files, disks, tap, mac } = spec
  const { firecrackerHides } = architectures[arch]
  return [
    put('/machine-config', { vcpu_count: cpus, mem_size_mib: memoryMiB }),
    ...(firecrackerHides && !nested ? [put('/cpu-config', firecrackerHides)] : []),
    put('/boot-source', { kernel_image_path: kernel, initrd_path: files.initrd, boot_args: kernelArguments(spec) }),
    ...disks.map(({ path, readOnly }, index) => {
      const id = `disk${index}`
      // Unsafe leaves the guest's flushes out.
      const cache = readOnly ? 'Unsafe' : 'Writeback'
      const place = { drive_id: id, path_on_host: path, is_read_only: readOnly, is_root_device: false }
      return put(`/drives/${id}`, { ...place, cache_type: cache })
    }),
    put('/network-interfaces/eth0', { iface_id: 'eth0', host_dev_name: tap, guest_mac: mac }),
    put('/actions', { action_type: 'InstanceStart' }),
  ]
}

function put(path: string, body: object): ApiRequest {
  return { method: 'PUT', path, body }
}

function kernelArguments({ arch, nested, kernelArguments: more = '' }: FirecrackerSpec): string {
  const {
    console,
    kernelArguments: always,
    engineArguments,
    hypervisorArguments,
    firecrackerConsole,
  } = architectures[arch]
  const hypervisor = nested ? hypervisorArguments : ''
  const all = ['quiet', firecrackerConsole ?? console, always, engineArguments.firecracker, hypervisor, more]
  return all.filter((each) => each !== '').join(' ')
}
