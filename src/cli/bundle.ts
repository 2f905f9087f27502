import type { Bundle } from '../bundle/bundle.ts'
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
