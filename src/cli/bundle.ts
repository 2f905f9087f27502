import type { Bundle } from '../bundle/bundle.ts'
import { isHostUrl } from '../machine/ssh-settings.ts'
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

/** The bundle of the host that a run starts on, given what `--on` says: that of this host, or a copy of it. */
export async function bundleOn(own: Session, on = ''): Promise<Bundle> {
  const bundle = await theBundle(own)
  if (!isHostUrl(on)) return bundle
  const { ensureRemoteBundle } = await import('../bundle/remote.ts')
  const { hostArch } = await import('../engine/architecture.ts')
  const { showProgress } = await import('./progress.ts')
  const { machine, bundleDir } = await own.context.hostNamed(on)
  const { progress, done } = showProgress()
  const { host: local, signal } = own.context
  const request = { local, remote: machine, remoteDir: bundleDir, arch: hostArch(), progress, signal }
  return ensureRemoteBundle(bundle, request).finally(done)
}
