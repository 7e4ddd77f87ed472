//! The enums of the targets: their numbers and names.

use serde_json::json;
use shared::seed::target::*;

/// Numbers and names of one enum, as the protocol has them.
fn check_enum<T>(all: &[T], table: &[(i32, &str)])
where
    T: Copy + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    assert_eq!(all.len(), table.len());
    for (&value, &(number, word)) in all.iter().zip(table) {
        assert_eq!(serde_json::to_value(value).unwrap(), json!(word));
        for form in [json!(number), json!(word)] {
            assert_eq!(serde_json::from_value::<T>(form).unwrap(), value);
        }
    }
}

#[test]
fn enums_have_the_numbers_and_names_of_the_protocol() {
    check_enum(
        ComputeEngineDiskType::ALL,
        &[
            (0, "COMPUTE_ENGINE_DISK_TYPE_UNSPECIFIED"),
            (1, "COMPUTE_ENGINE_DISK_TYPE_STANDARD"),
            (2, "COMPUTE_ENGINE_DISK_TYPE_SSD"),
            (3, "COMPUTE_ENGINE_DISK_TYPE_BALANCED"),
            (4, "COMPUTE_ENGINE_DISK_TYPE_HYPERDISK_BALANCED"),
            (5, "COMPUTE_ENGINE_DISK_TYPE_HYPERDISK_BALANCED_HIGH_AVAILABILITY"),
        ],
    );
    check_enum(
        ComputeEngineLicenseType::ALL,
        &[
            (0, "COMPUTE_ENGINE_LICENSE_TYPE_DEFAULT"),
            (1, "COMPUTE_ENGINE_LICENSE_TYPE_PAYG"),
            (2, "COMPUTE_ENGINE_LICENSE_TYPE_BYOL"),
        ],
    );
    check_enum(
        ComputeEngineBootOption::ALL,
        &[
            (0, "COMPUTE_ENGINE_BOOT_OPTION_UNSPECIFIED"),
            (1, "COMPUTE_ENGINE_BOOT_OPTION_EFI"),
            (2, "COMPUTE_ENGINE_BOOT_OPTION_BIOS"),
        ],
    );
    check_enum(
        ComputeEngineNetworkTier::ALL,
        &[
            (0, "COMPUTE_ENGINE_NETWORK_TIER_UNSPECIFIED"),
            (1, "NETWORK_TIER_STANDARD"),
            (2, "NETWORK_TIER_PREMIUM"),
        ],
    );
    check_enum(
        BootConversion::ALL,
        &[
            (0, "BOOT_CONVERSION_UNSPECIFIED"),
            (1, "NONE"),
            (2, "BIOS_TO_EFI"),
        ],
    );
    check_enum(
        AppliedLicenseType::ALL,
        &[(0, "TYPE_UNSPECIFIED"), (1, "NONE"), (2, "PAYG"), (3, "BYOL")],
    );
    check_enum(
        OnHostMaintenance::ALL,
        &[
            (0, "ON_HOST_MAINTENANCE_UNSPECIFIED"),
            (1, "TERMINATE"),
            (2, "MIGRATE"),
        ],
    );
    check_enum(
        RestartType::ALL,
        &[
            (0, "RESTART_TYPE_UNSPECIFIED"),
            (1, "AUTOMATIC_RESTART"),
            (2, "NO_AUTOMATIC_RESTART"),
        ],
    );
    check_enum(
        NodeAffinityOperator::ALL,
        &[(0, "OPERATOR_UNSPECIFIED"), (1, "IN"), (2, "NOT_IN")],
    );
    check_enum(
        DiskTypeAlpha::ALL,
        &[
            (0, "DISK_TYPE_UNSPECIFIED"),
            (1, "STANDARD"),
            (2, "BALANCED"),
            (3, "SSD"),
            (4, "HYPERDISK_BALANCED"),
            (5, "HYPERDISK_BALANCED_HIGH_AVAILABILITY"),
        ],
    );
    check_enum(LicenseTypeAlpha::ALL, &[(0, "DEFAULT"), (1, "PAYG"), (2, "BYOL")]);
    check_enum(
        BootOptionAlpha::ALL,
        &[(0, "BOOT_OPTION_UNSPECIFIED"), (1, "EFI"), (2, "BIOS")],
    );
}
