import { resolve } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { NestvmError } from '../store/error.ts'
import type { Session } from './session.ts'

/** The bundle, got first if need be, with its progress on stderr. */
export async function theBundle({ context }: Session, options: { refresh?: boolean } = {}): Promise<Bundle> {
  const { ensureBundle } = await import('../bundle/bundle.ts')
  const { hostArch } = await import('../engine/architecture.ts')
  const { showProgress } = await import('./progress.ts')
  const arch = hostArch()
  const { progress, done } = showProgress()
  try {
    return await ensureBundle({
      ...{ hostArch: arch, guestArch: arch, machine: context.host },
      ...{ progress, signal: context.signal, refresh: options.refresh },
    })
  } finally {
    done()
  }
}

/**
 * The bundle of the host that a run starts on, given what `--on` says: that of this host, or a copy of it. With the QEMU
 * that `--qemu` or NESTVM_QEMU names, which is one of that host.
 */
export async function bundleOn(own: Session, on = '', qemu?: string): Promise<Bundle> {
  const { isHostUrl } = await import('../machine/ssh-settings.ts')
  const { thisHost } = await import('../stack/host.ts')
  const bundle = await theBundle(own)
  const remote = isHostUrl(on)
  if (on !== '' && !remote) {
    if (qemu === undefined) return bundle
    throw new NestvmError('UNSUPPORTED', '--qemu is for the outermost level, which runs already', { exitStatus: 2 })
  }
  const there = remote ? await copyOf(own, bundle, on) : bundle
  const program = qemu ?? process.env.NESTVM_QEMU
  if (!program) return there
  const { withQemu } = await import('../bundle/own-qemu.ts')
  const { machine } = await own.context.hostNamed(remote ? on : thisHost)
  return withQemu(there, machine, program.includes('/') && !remote ? resolve(program) : program)
}

async function copyOf(own: Session, bundle: Bundle, on: string): Promise<Bundle> {
  const { ensureRemoteBundle } = await import('../bundle/remote.ts')
  const { hostArch } = await import('../engine/architecture.ts')
  const { showProgress } = await import('./progress.ts')
  const { machine, bundleDir } = await own.context.hostNamed(on)
  const { progress, done } = showProgress()
  const { host: local, signal } = own.context
  const request = { local, remote: machine, remoteDir: bundleDir, arch: hostArch(), progress, signal }
  return ensureRemoteBundle(bundle, request).finally(done)
}
