import { isIPv4, isIPv6 } from 'node:net'

/** What a report must not tell. */
export type Kind = 'secret' | 'serial' | 'uuid' | 'mac' | 'address' | 'host' | 'user'

/** Finds private values by what they look like, or by what stands before them. */
export interface Rule {
  kind: Kind
  /** Global; the value is the named group, or all of it where there is none. */
  pattern: RegExp
  /** Of what matches, what is private; all unless said. */
  when?: (value: string) => boolean
}

/** PWD is where a shell is; Pwd in a connection string is not. */
const secretName =
  '(?:passw(?:or)?d|passphrase|passcode|(?<=[_.-])pwd|(?<!\\w)pwd(?==[^/"\'])|secret|token|credential|(?:api|access|private|signing|encryption|auth|ssh|session|luks|account|shared|client)[_.-]?key|psk|authorization|cookie)'
/** To the next white space, or in a list of options to the next of them: QEMU writes a comma in a value as two. */
const bareValue = '(?:[^\\s,&;"\']|,,|[,&;](?![\\w.-]+=)|(?<=\\S)["\'](?=\\w))+'
const value = `(?:"(?<v>[^"\\n]+)"|'(?<q>[^'\\n]+)'|(?<b>${bareValue}))`

/**
 * Ordered: what an earlier rule has found, a later one does not see. A guest may write what it likes: repetitions are
 * bounded, lest one of its lines takes hours.
 */
export const rules: readonly Rule[] = [
  { kind: 'secret', pattern: /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g },
  // Authorization: Bearer abc
  { kind: 'secret', pattern: /\b(?:Bearer|Basic)\s+(?<v>[\w.~+/=-]{8,})/g, when: (text) => /[\d=A-Z]/.test(text) },
  // scheme://user:password@host
  { kind: 'secret', pattern: /\b[a-z][a-z0-9+.-]{1,20}:\/\/(?<v>[^\s/@"':]{0,256}:[^\s/@"']{1,256})(?=@)/gi },
  // NAME_TOKEN=abc, "password": "abc", rd.luks.key: abc
  {
    kind: 'secret',
    pattern: new RegExp(`${secretName}[\\w.-]{0,64}["']?[ \\t]{0,4}[=:][ \\t]{0,4}${value}`, 'gi'),
    when: (text) => !/^(on|off|yes|no|y|n|true|false|enabled|disabled|none|null|unknown|\d)$/i.test(text),
  },
  // --password abc
  {
    kind: 'secret',
    pattern: new RegExp(`(?<=\\s|^|["'])--?[\\w-]{0,64}${secretName}[\\w-]{0,64}["']?,?\\s+(?!-)${value}`, 'gi'),
  },
  { kind: 'secret', pattern: new RegExp(`\\b(?:curl|wget)\\b[^\\n]{0,500}?\\s(?:-u|--user)[\\s=]+${value}`, 'g') },
  { kind: 'secret', pattern: new RegExp(`\\bsshpass\\s+-p\\s*${value}`, 'g') },
  // QEMU: -object secret,id=s,data=abc; -fw_cfg name=opt/x,string=abc; -smbios type=11,value=abc
  { kind: 'secret', pattern: new RegExp(`\\bsecret(?:_keyring)?,(?:\\S{0,500}?,)?data=${value}`, 'g') },
  { kind: 'secret', pattern: /"qom-type"\s*:\s*"secret"[^}\n]{0,500}?"data"\s*:\s*"(?<v>[^"]+)"/g },
  { kind: 'secret', pattern: new RegExp(`\\bname=opt/[^\\s,]{0,200},string=${value}`, 'g') },
  { kind: 'secret', pattern: new RegExp(`\\btype=11,(?:\\S{0,500}?,)?value=${value}`, 'g') },
  {
    kind: 'secret',
    pattern:
      /\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|npm_\w{30,}|hf_\w{30,}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)/g,
  },
  { kind: 'secret', pattern: /\bssh-(?:rsa|ed25519|dss)\s+(?<v>AAAA[\w+/=]+)/g },

  // dmidecode, lshw, cpuid, s390x's sysinfo, USB devices
  {
    kind: 'serial',
    pattern:
      /(?:serial ?(?:number|no\.?|#)|asset tag|sequence code|(?:product|board|chassis)_(?:serial|asset_tag)|processor serial number|\bS\/N)\s*[=:][ \t]*(?<v>[^\s,;\]][^\n,;\]]{0,200}?)[ \t]{0,40}(?=$|[\n,;\]])/gim,
  },
  { kind: 'serial', pattern: /^Serial\s*:\s*(?<v>[0-9a-f]{8,})[ \t]*$/gim },
  {
    kind: 'serial',
    pattern: new RegExp(`(?<![\\w])(?:serial|asset|wwn)["']?\\s?[=:]\\s?(?!\\s)${value}`, 'g'),
    when: (text) => !/^(chardev|mon|stdio|8250)/.test(text),
  },
  { kind: 'serial', pattern: /\/dev\/disk\/by-(?:id|uuid|partuuid|label|partlabel)\/(?<v>[^\s,"']+)/g },
  { kind: 'serial', pattern: /\b(?:wwn-|wwn\.|naa\.|eui\.|nguid\.|t10\.)(?:0x)?(?<v>[0-9a-f]{12,32})\b/gi },

  { kind: 'uuid', pattern: /\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi, when: notAlike },
  { kind: 'uuid', pattern: /\b(?:PART)?UUID=(?<v>[^\s,"'<]+)/g },
  // A machine's id, and what device mapper makes of a UUID.
  { kind: 'uuid', pattern: /(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])/gi, when: notAlike },

  { kind: 'mac', pattern: /(?<![\w:-])(?:[0-9a-f]{2}:){5,19}[0-9a-f]{2}(?![\w:-])/gi, when: notAlike },
  { kind: 'mac', pattern: /(?<![\w-])(?:[0-9a-f]{2}-){5,7}[0-9a-f]{2}(?![\w-])/gi, when: notAlike },
  { kind: 'mac', pattern: /\benx(?<v>[0-9a-f]{12})\b/gi },

  {
    kind: 'address',
    pattern: /(?<![\w:.-])(?:[0-9a-f]{1,4}|:)?:[0-9a-f:]{0,45}(?::|[0-9a-f]{1,4})(?:\d+\.\d+\.\d+\.\d+)?(?![\w:])/gi,
    when: (text) => isIPv6(text) && !/^[0:]*1?$/.test(text),
  },
  {
    kind: 'address',
    pattern: /(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)/g,
    when: (text) => isIPv4(text) && !/^(127\.|255\.|0\.)/.test(text),
  },

  { kind: 'host', pattern: /\bhostname(?:\s+set)?\s*(?:to|:|=)\s*<?(?<v>[\w.-]+)/gi },
  { kind: 'host', pattern: /\bip=[^\s:]*:[^\s:]*:[^\s:]*:[^\s:]*:(?<v>[\w.-]+):/g },
  { kind: 'host', pattern: /^(?:LPAR|VM\d\d) (?:Extended )?Name:\s*(?<v>\S+)/gm },
  { kind: 'host', pattern: /\biqn\.(?<v>[\w.:-]+)/g },
  {
    kind: 'host',
    pattern:
      /\b[a-z][a-z0-9+.-]{1,20}:\/\/(?:[^\s/@"']{0,256}@)?(?<v>[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,10})(?=[:/\s"',]|$)/gi,
  },
  // alice@box; not a unit of systemd or a node of a device tree.
  {
    kind: 'host',
    pattern: /(?<=[\w.<>-]@)(?<v>[a-z][\w-]*(?:\.[\w-]+)*)(?![\w@])/gi,
    when: (text) => !/^[0-9a-f,]+$|\.(service|socket|mount|slice|timer|target|scope|path|swap)$/i.test(text),
  },
  { kind: 'user', pattern: /(?<![\w.+-])(?<v>[\w.+-]{1,64})(?=@<host)/g },
  { kind: 'user', pattern: /\/(?:home|Users)\/(?<v>[\w.+-]+)/g },
  { kind: 'user', pattern: /(?<![\w.-])(?:user|username|USER|LOGNAME|SUDO_USER)=(?<v>[a-z_][\w.-]*)/g },
  { kind: 'user', pattern: /(?<=\s|^)-runas\s+(?<v>\S+)/gm },
  { kind: 'user', pattern: /\b[ug]id=\d+\((?<v>[^)]+)\)/g },
]

export function isSecretName(name: string): boolean {
  return new RegExp(secretName, 'i').test(name)
}

/** All zeros, or all ones, is no machine's. */
function notAlike(text: string): boolean {
  return new Set(text.toLowerCase().replaceAll(/[:-]/g, '')).size > 1
}

const publicDomain =
  /(^|\.)(kernel\.org|debian\.org|ubuntu\.com|fedoraproject\.org|redhat\.com|suse\.com|opensuse\.org|archlinux\.org|qemu\.org|libvirt\.org|freedesktop\.org|gnu\.org|github\.com)$/i

/** What stands where a private value could, but tells nothing of a machine or its people. */
export function isCommon(kind: Kind, text: string): boolean {
  if (kind === 'host')
    return (
      publicDomain.test(text) ||
      /^(localhost|ip6-.*|\(none\)|localdomain|linux|host|debian|ubuntu|fedora|qemu|kvm|arch|alpine)(\.localdomain)?$|^[\d.]*$/i.test(
        text,
      )
    )
  if (kind === 'user')
    return /^(root|nobody|user|username|admin|test|guest|ubuntu|debian|fedora|centos|ec2-user|core|vagrant|runner|qemu|kvm|libvirt-qemu|build|buildd|mockbuild|\d+)$|^$/i.test(
      text,
    )
  if (kind === 'serial')
    return /^(not (specified|available|applicable|present|provided).*|none|unknown|n\/?a|default string|to be filled.*|(system|chassis|base ?board|board|asset|no)[\w -]*(serial|asset|tag|number)[\w -]*|[0.x-]+|\d{1,2})$/i.test(
      text,
    )
  return text === ''
}
