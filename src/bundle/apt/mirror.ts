import type { Machine } from '../../machine/machine.ts'
import { NestvmError } from '../../store/error.ts'
import { apt } from './command.ts'

/**
 * The address that Debian's packages come from: `NESTVM_MIRROR`, else the one that the host's apt is configured with.
 * Throws `MIRROR_UNKNOWN` on a host with other sources only, `BAD_MIRROR`, `APT_MISSING`.
 */
export async function findMirror(machine: Machine, signal?: AbortSignal): Promise<string> {
  const given = process.env.NESTVM_MIRROR
  if (given) return checked(given)
  const argv = ['apt-get', 'indextargets', '--format', fields.join('\t'), 'Created-By: Packages']
  const targets = await apt(machine, argv, { signal, timeoutMs: 30_000 })
  const mirror = debianSite(targets)
  if (mirror !== undefined) return mirror
  throw new NestvmError('MIRROR_UNKNOWN', 'apt on this host has no Debian archive among its sources', {
    hint: 'set NESTVM_MIRROR to the address of a Debian mirror',
  })
}

/** SITE comes last: it alone cannot hold a tab. apt leaves a field that it does not know as it is. */
const fields = ['$(LABEL)', '$(RELEASE)', '$(COMPONENT)', '$(SITE)']

/** Picks Debian's main archive from lines of LABEL, RELEASE, COMPONENT and SITE. */
export function debianSite(targets: string): string | undefined {
  const rows = targets.split('\n').map((line) => {
    const [label = '', release = '', component = '', site = ''] = line.split('\t')
    return { label, release, component, site }
  })
  const main = rows.filter(({ component, site }) => component === 'main' && site !== '')
  // The label is in the downloaded lists, which container images come without.
  const labelled = main.find(({ label }) => label === 'Debian')
  const named = main.find(({ label, release }) => label === '$(LABEL)' && debianReleases.test(release))
  return (labelled ?? named)?.site
}

const debianReleases = /^(bullseye|bookworm|trixie|forky|duke|sid|unstable|testing|(old)?(old)?stable)$/

/** It becomes a word of sources.list. */
function checked(mirror: string): string {
  if (/^[a-z][a-z0-9+]*:\/[^\s[\]"]+$/.test(mirror)) return mirror
  throw new NestvmError('BAD_MIRROR', `NESTVM_MIRROR is not an address: ${JSON.stringify(mirror)}`, {
    hint: 'set it to what stands in a line of sources.list, for example file:/srv/mirror/debian',
  })
}
